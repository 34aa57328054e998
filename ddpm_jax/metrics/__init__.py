"""Metrics of sample quality: networks that extract features of images, and the scores computed from them.

features.py            the interface of a feature extractor
inception.py           Inception-v3, the features of FID, IS and KID
classifier.py          features of a classifier of the data set's own labels; no download needed
moments.py             mean and covariance of features, in one pass
scores.py              Frechet distance, Inception score, kernel distance
precision_recall.py    precision and recall
neighbours.py          nearest training images, and copies among the samples
"""
