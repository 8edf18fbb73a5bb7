"""Data: images on disk -> scenes -> tensors, and data sets made from sharp photographs."""

import cv2

# Its thread pool would hang the workers that a data loader forks; files are read in parallel anyway.
cv2.setNumThreads(0)
