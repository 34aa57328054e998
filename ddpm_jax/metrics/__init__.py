"""How good samples are: what networks see in them, and the scores of the field over that.

features.py            what an extractor of features is
inception.py           Inception-v3, the features of FID, IS and KID
classifier.py          features of a data set's own labels; need no download
moments.py             mean and covariance of features, in one pass
scores.py              Frechet distance, Inception score, kernel distance
precision_recall.py    precision and recall
"""
