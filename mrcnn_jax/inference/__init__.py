"""From images to detections, and from detections to results and pictures."""
