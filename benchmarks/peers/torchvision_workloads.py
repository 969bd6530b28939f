"""The reference for ``mrcnn-jax benchmark speed``: runs the same workloads with torchvision.

Requests and answers are lines of JSON on standard input and output. The first request is a workload with its
settings; each later one asks to run it so many times, or once for its peak memory. Uses a GPU if torch finds
one.
"""

import contextlib
import importlib.metadata
import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models import detection
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign, nms, roi_pool

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Arrays = dict[str, np.ndarray]
Run = Callable[[], Any]

_FIRST_VERSIONS: dict[str, Callable[..., FasterRCNN]] = {
    "maskrcnn_resnet50_fpn": MaskRCNN,
    "keypointrcnn_resnet50_fpn": KeypointRCNN,
    "fasterrcnn_resnet50_fpn": FasterRCNN,
}


def pool_pyramid(settings: dict[str, Any], arrays: Arrays) -> Run:
    """RoIAlign of one image's boxes, with its gradient if ``arrays`` has a cotangent."""
    levels = [name for name in arrays if name.startswith("p")]
    maps = {name: tensor(arrays[name][None]) for name in levels}
    boxes = [tensor(arrays["boxes"])]
    pool = MultiScaleRoIAlign(levels, settings["bins"], settings["sampling_ratio"])
    image_sizes = [tuple(settings["image_size"])]
    if "cotangent" not in arrays:
        return torch.no_grad()(lambda: pool(maps, boxes, image_sizes))
    cotangent = tensor(arrays["cotangent"])
    for values in maps.values():
        values.requires_grad_()

    def run() -> Tensor:
        value = pool(maps, boxes, image_sizes)
        return torch.autograd.grad(value, list(maps.values()), cotangent)[0]

    return run


def pool_map(settings: dict[str, Any], arrays: Arrays) -> Run:
    values, boxes = tensor(arrays["map"][None]), [tensor(arrays["boxes"])]
    return torch.no_grad()(lambda: roi_pool(values, boxes, settings["bins"], 1 / 4))


def suppress(settings: dict[str, Any], arrays: Arrays) -> Run:
    boxes, scores = tensor(arrays["boxes"]), tensor(arrays["scores"])
    return lambda: nms(boxes, scores, settings["iou"])


def paste_and_encode(settings: dict[str, Any], arrays: Arrays) -> Run:
    masks, boxes = tensor(arrays["masks"][:, None]), tensor(arrays["boxes"])
    return lambda: encode(paste_masks_in_image(masks, boxes, tuple(settings["image_size"])))


def encode(masks: Tensor) -> list[Any]:
    """Run-length codes of probabilities ``[N 1 H W]``, as in torchvision's reference evaluation."""
    from pycocotools import mask

    bitmaps = (masks > 0.5).cpu().numpy().astype(np.uint8)
    return [mask.encode(np.asfortranarray(bitmap[0])) for bitmap in bitmaps]


def infer(settings: dict[str, Any], arrays: Arrays) -> Run:
    model = build(settings, arrays).eval()

    def run() -> list[Any]:
        images = [to_image(image) for image in arrays["images"]]
        with torch.inference_mode(), precision(settings):
            outputs = model(images)
        for output in outputs:
            if "masks" in output:
                output["masks"] = encode(output["masks"])
        return outputs

    return run


def infer_onnx(settings: dict[str, Any], arrays: Arrays) -> Run:
    from onnx_runtimes import infer  # type: ignore[import-not-found]  # beside this program

    run: Run = infer(settings, arrays, build)
    return run


def train(settings: dict[str, Any], arrays: Arrays) -> Run:
    model = build(settings, arrays).train()
    images = [to_image(image) for image in arrays["images"]]
    names = [name for name in ("boxes", "labels", "masks", "keypoints") if name in arrays]
    targets = [{name: tensor(arrays[name][i]) for name in names} for i in range(len(images))]
    for target in targets:
        target["labels"] = target["labels"].long()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-9, momentum=0.9, weight_decay=1e-4)

    def run() -> float:
        with precision(settings):
            loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def build(settings: dict[str, Any], arrays: Arrays) -> FasterRCNN:
    """The model with the weights in ``arrays``; a first version's norms, stem and layer1 are frozen."""
    arguments = settings["arguments"]
    if "keypoint" in settings["model"]:
        arguments["num_keypoints"] = settings["keypoints"]
    if settings["model"] in _FIRST_VERSIONS:
        backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d)
        model = _FIRST_VERSIONS[settings["model"]](backbone, num_classes=settings["classes"], **arguments)
        overwrite_eps(model, 0.0)
        for name in ("conv1", "layer1"):
            model.backbone.body[name].requires_grad_(False)
    else:
        make = getattr(detection, settings["model"])
        model = make(weights=None, weights_backbone=None, num_classes=settings["classes"], **arguments)
    prefix = "weights/"
    model.load_state_dict(
        {
            name.removeprefix(prefix): torch.from_numpy(x)
            for name, x in arrays.items()
            if name.startswith(prefix)
        }
    )
    return model.to(DEVICE)


def precision(settings: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=settings["dtype"] == "bfloat16")


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(DEVICE)


def to_image(pixels: np.ndarray) -> Tensor:
    """uint8 pixels [H W 3] in the format of torchvision's models."""
    return tensor(pixels).permute(2, 0, 1).float().div(255)


def seconds(run: Run, times: int) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(times):
        run()
        wait()  # after every run, like the JAX side
    return time.perf_counter() - start


def wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes(run: Run) -> int:
    """The peak memory in use during ``run``: the GPU's, or else the whole process's."""
    run()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError):  # only Linux can reset the peak
        Path("/proc/self/clear_refs").write_text("5")
        run()
        (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


WORKLOADS = {
    "roi_align": pool_pyramid,
    "roi_align_grad": pool_pyramid,
    "roi_align_adaptive": pool_pyramid,
    "roi_pool": pool_map,
    "nms": suppress,
    "paste_rle": paste_and_encode,
    "inference": infer,
    "onnx": infer_onnx,
    "train": train,
}


def main() -> None:
    request = json.loads(sys.stdin.readline())
    arrays = dict(np.load(request["arrays"]))
    prepare = next(
        WORKLOADS[name] for name in sorted(WORKLOADS, reverse=True) if request["workload"].startswith(name)
    )
    if importlib.util.find_spec("pycocotools") is None:
        sys.path.append(request["packages"])  # last, so that this environment's own packages take precedence
    tf32 = request["precision"] == "default"  # torch's own default allows it in convolutions alone
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    run = prepare(request["settings"], arrays)
    print(
        json.dumps({"device": DEVICE.type, "version": importlib.metadata.version("torchvision")}), flush=True
    )
    for line in sys.stdin:
        question = json.loads(line)
        answer = (
            {"bytes": peak_bytes(run)} if "peak" in question else {"seconds": seconds(run, question["times"])}
        )
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
