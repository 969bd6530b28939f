from typing import Any

import pytest

from mrcnn_jax.weights.pickles import Stored
from mrcnn_jax.weights.state_dicts import choose, find_state_dicts


class Number(Stored):
    def array(self):
        raise AssertionError("only names are looked at")


def state(*names: str) -> dict[str, Stored]:
    return {name: Number() for name in names}


WANTED = {"conv1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight", "fc.weight"}


def prefixed(prefix: str) -> dict[str, Stored]:
    return state(*(f"{prefix}{name}" for name in sorted(WANTED)))


def chosen(content: Any, key: str | None = None) -> tuple[set[str], str]:
    arrays, place = choose(find_state_dicts(content), WANTED, key)
    return set(arrays), place


def test_state_dicts_by_hand():
    content = {
        "epoch": 3,
        "a": Number(),
        "model": {"b": Number(), "ema": {"c": Number()}},
        "args": {"lr": 0.1},
    }
    found = find_state_dicts(content)
    assert {key: list(arrays) for key, arrays in found.items()} == {
        "": ["a"],
        "model": ["b"],
        "model.ema": ["c"],
    }


def test_a_dict_that_is_there_twice_is_found_once():
    content: dict = {"model": prefixed("")}
    content["self"] = content
    content["ema"] = content["model"]
    assert list(find_state_dicts(content)) == ["model"]


def test_state_dicts_in_lists():
    assert chosen({"models": [prefixed("")], "epochs": [1, 2]}) == (WANTED, "models.0")
    assert chosen((prefixed("module."), {"lr": 0.1})) == (WANTED, "0.module")
    with pytest.raises(ValueError, match=r"several sets of weights that fit: '0', '1'; choose one"):
        chosen([prefixed(""), prefixed("")])
    assert chosen([prefixed(""), prefixed("")], "1") == (WANTED, "1")
    itself: list = []
    itself.append(itself)
    with pytest.raises(ValueError, match="it holds a list"):
        find_state_dicts(itself)


def test_content_of_another_kind():
    with pytest.raises(ValueError, match="it holds a list; it must hold a dict of arrays"):
        find_state_dicts([Number()])


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "model.", "backbone.", "encoder.", "module.model.", "backbone.body."),
        *("backbone.bottom_up.", "model.backbone.bottom_up.", "module.encoder_q."),
    ],
)
@pytest.mark.parametrize(
    "key", ["", "state_dict", "model_state_dict", "model", "ema", "net", "network", "teacher", "weights.x"]
)
def test_prefixes_and_keys(prefix: str, key: str):
    content: dict = prefixed(prefix) | state("queue", "loss.weight")
    for part in reversed(key.split(".") if key else []):
        content = {part: content, "optimizer": {"state": {"step": Number()}}, "epoch": 3}
    assert chosen(content) == (WANTED, ".".join(filter(None, (key, prefix[:-1]))))


def test_without_a_prefix_all_arrays_are_returned():
    assert chosen(prefixed("") | state("other")) == (WANTED | {"other"}, "")


@pytest.mark.parametrize("mark", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_marks_of_wrappers_may_be_anywhere(mark: str):
    names = (f"module.{mark}{name.replace('layer1.', f'layer1.{mark}')}" for name in WANTED)
    assert chosen({"model": state(*names)}) == (WANTED, "model.module")


@pytest.mark.parametrize(
    ("copy", "trained"), [("module.encoder_k.", "module.encoder_q."), ("momentum_encoder.", "base_encoder.")]
)
def test_the_trained_encoder_is_taken_rather_than_its_copy(copy: str, trained: str):
    content = {"state_dict": prefixed(copy) | prefixed(trained)}
    assert chosen(content) == (WANTED, f"state_dict.{trained[:-1]}")
    assert chosen(content, f"state_dict.{copy[:-1]}") == (WANTED, f"state_dict.{copy[:-1]}")
    assert chosen({"state_dict": prefixed(copy)}) == (WANTED, f"state_dict.{copy[:-1]}")


def test_several_sets_that_fit():
    content = {"model": prefixed(""), "ema": {"module": prefixed("module.")}, "epoch": 3}
    with pytest.raises(
        ValueError, match=r"several sets .*: 'model', 'ema\.module\.module'; choose .* --key=KEY,"
    ):
        chosen(content)
    assert chosen(content, "model") == (WANTED, "model")
    assert chosen(content, "ema") == (WANTED, "ema.module.module")
    with pytest.raises(ValueError, match=r"it has no arrays under 'net', only under 'model', 'ema\.module'"):
        chosen(content, "net")
    both = {"state_dict": prefixed("student.") | prefixed("teacher.")}
    with pytest.raises(ValueError, match=r"'state_dict\.student', 'state_dict\.teacher'"):
        chosen(both)
    assert chosen(both, "state_dict.teacher") == (WANTED, "state_dict.teacher")


def test_the_most_complete_set_is_taken():
    parts = state("conv1.weight", "layer1.0.conv1.weight")
    assert chosen({"model": prefixed("x."), "ema": parts}) == (WANTED, "model.x")


def test_a_coincidence_is_no_prefix():
    wanted = {f"layer{i}.conv1.weight" for i in range(40)} | {"conv1.weight"}
    arrays, place = choose({"": state("blocks.0.conv1.weight", "other"), "x": state("y")}, wanted)
    assert (set(arrays), place) == ({"blocks.0.conv1.weight", "other"}, "")


def test_keys_cannot_control_the_terminal():
    with pytest.raises(ValueError) as error:
        chosen({f"\x1b[2J{letter}" * 100: prefixed("") for letter in "abcdefgh"})
    assert "\x1b" not in str(error.value) and len(str(error.value)) < 800
    assert "and 2 more" in str(error.value)


def test_deep_content_and_long_names_take_no_time():
    content: dict = {"a": Number()}
    for _ in range(10_000):
        content = {"x" * 100: content}
    content["." * 10_000] = Number()
    assert list(find_state_dicts(content)) == [""]
    arrays, place = choose({"": state("." * 10_000 + "conv1.weight")}, WANTED)
    assert place == "" and len(arrays) == 1


def test_the_top_can_be_chosen():
    content = prefixed("") | {"ema": prefixed("")}
    with pytest.raises(ValueError, match="several sets of weights that fit: '', 'ema'; choose"):
        chosen(content)
    assert chosen(content, "") == (WANTED, "")
