"""Measures a trained model, or any images, and writes down what it found with all that is needed to find it again.

image_sets.py   samples, data sets, folders and files as images to be measured
bound.py        bits/dim and rate-distortion of a work folder (Tables 1 and 4)
quality.py      features of images, reference statistics, FID and its like (Tables 1 to 3)
progressive.py  quality of the predicted x_0 against reverse steps (Figure 10)
record.py       tables/metrics.json
"""
