"""From detections to COCO's average precision."""
