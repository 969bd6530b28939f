"""Pure functions on arrays: boxes, anchors, matching, NMS, region features, masks and keypoints."""
