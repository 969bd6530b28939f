"""Pure functions on arrays: boxes, anchors, matching, suppression, region features, masks and keypoints."""
