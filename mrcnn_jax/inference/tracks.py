"""Follows objects from frame to frame, by ByteTrack (arXiv 2110.06864) as Roboflow's ``trackers`` has it."""

from typing import Any

import numpy as np

from mrcnn_jax.inference.results import Result

_MARGIN = 0.1  # an object that begins a track has a score above the threshold by this, as in ByteTrack's code
_SPACING = 4  # widths of a frame from one category's boxes to those of the next


class Tracker:
    """Gives the objects of successive frames the numbers of their tracks.

    An object continues a track of its own category only, as in MMDetection. It gets a number with its second
    frame; a track that is lost for more than a second is not found again.

    Args:
        frame_rate: frames per second.
        threshold: objects with at least this score continue tracks first, and begin new ones from a score 0.1
            higher; others only continue what is left.

    Raises ValueError if the library ``trackers`` cannot be imported.
    """

    def __init__(self, *, frame_rate: float, threshold: float = 0.5) -> None:
        try:
            from trackers import ByteTrackTracker
        except ImportError as error:  # also for OpenCV, which may lack a library of the system
            raise ValueError(
                f"tracks need the library trackers ({error}): pip install 'mrcnn_jax[tracks]', or in a clone "
                "pip install -e '.[tracks]'"
            ) from error

        self._tracker: Any = ByteTrackTracker(
            frame_rate=frame_rate,
            lost_track_buffer=30,  # frames at 30 per second, whatever the frame rate
            high_conf_det_threshold=threshold,
            track_activation_threshold=min(threshold + _MARGIN, 1.0),
        )

    def update(self, result: Result, time: float) -> list[int | None]:
        """The track of each of the next frame's objects, from 0; None for an object without one.

        ``time`` is in seconds: objects are expected where they would be by then.
        """
        from supervision import Detections

        # Boxes of different categories lie apart, so that none of them overlap: the trick of batched NMS.
        shift = result.labels * (_SPACING * result.image_size[1])
        found = self._tracker.update(
            Detections(
                xyxy=result.boxes + np.stack([shift, 0 * shift] * 2, axis=1),
                confidence=result.scores,
                data={"row": np.arange(len(result))},  # the library may leave some out, in another order
            ),
            timestamp=time,
        )
        tracks: list[int | None] = [None] * len(result)
        for row, track in zip(found.data.get("row", ()), found.tracker_id, strict=True):
            if track >= 0:
                tracks[row] = int(track)
        return tracks
