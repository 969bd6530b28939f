import jax
import jax.numpy as jnp
import numpy as np

from mrcnn_jax.runtime.barriers import outlined


@jax.jit
def _double(x):
    return 2 * x


def _double_sine(x):
    return _double(jnp.sin(x))


def test_an_outlined_function_stays_a_call_in_the_compiled_program():
    def program(x, function):
        return function(function(x) + 1)

    x = jnp.linspace(0, 1, 12).reshape(3, 4)
    called = jax.jit(lambda x: program(x, outlined(_double_sine)))
    inlined = jax.jit(lambda x: program(x, jax.jit(_double_sine)))
    assert called.lower(x).compile().as_text().count(" call(") == 2
    assert " call(" not in inlined.lower(x).compile().as_text()
    np.testing.assert_array_equal(called(x), inlined(x))
    np.testing.assert_array_equal(jax.vmap(called)(x), inlined(x))
    np.testing.assert_allclose(
        jax.grad(lambda x: called(x).sum())(x), jax.grad(lambda x: inlined(x).sum())(x), rtol=1e-6
    )
