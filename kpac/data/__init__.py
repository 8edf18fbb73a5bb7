"""Data sets: finds scenes on disk and loads them as tensors; also synthesizes scenes from sharp photographs."""

import cv2

# OpenCV's thread pool would hang in the workers that a data loader forks; files are read in parallel anyway.
cv2.setNumThreads(0)
