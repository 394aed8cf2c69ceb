"""CIDEr-D, the paper's captioning score (section 3: COCO, Flickr30k, VATEX, YouCook2).

A caption is a bag of n-grams, 1 to 4 words long, weighted by how rare each is among the evaluated
images; the score is the cosine to each reference with counts clipped to the reference's, times a
Gaussian in the difference of lengths (Vedantam et al. 2015, with the "-D" changes).

This follows the COCO scorer's arithmetic, of which two points are easy to miss. The idf comes
from the references of the images being scored, so a subset scores differently from the whole, and
one image alone scores 0. And a caption of two words has no 3- or 4-grams, which count as 0, so even
the right one scores 5, not 10. Equal to that scorer to 2e-15 on COCO val2017 (pycocoevalcap 1.2).
Papers print 100 times the value returned here.
"""

import collections
import math
from collections.abc import Sequence

import numpy as np

MAX_NGRAM = 4
LENGTH_SIGMA = 6.0
SCALE = 10.0

NGram = tuple[str, ...]
# One dict for each n-gram length, of tf-idf weights; their norms; the number of bigrams, which that
# scorer takes for the length.
_Vector = tuple[list[dict[NGram, float]], list[float], int]


def cider_d(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
) -> np.ndarray:  # f64[images]
    """Scores one hypothesis an image against its references; the corpus score is the mean.

    Captions are strings of tokens joined by spaces, as `caption_tokenizer.tokenize` gives them.
    Raises ValueError where the lengths differ, nothing is given, or an image has no reference.
    """
    if len(hypotheses) != len(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses for {len(references)} images: give one an image"
        )
    if not hypotheses:
        raise ValueError("no captions to score: give at least one image")
    for i, image_references in enumerate(references):
        if isinstance(image_references, str) or not image_references:
            raise ValueError(
                f"references[{i}]={image_references!r}: give a list of one caption or more"
            )
    counted = [[_count_ngrams(r) for r in image_references] for image_references in references]
    document_frequency = collections.Counter(
        ngram for image_references in counted for ngram in set().union(*image_references)
    )
    log_num_images = math.log(len(references))

    def weigh(counts: collections.Counter[NGram]) -> _Vector:
        weights: list[dict[NGram, float]] = [{} for _ in range(MAX_NGRAM)]
        num_bigrams = 0
        for ngram, count in counts.items():
            idf = log_num_images - math.log(max(1, document_frequency[ngram]))
            weights[len(ngram) - 1][ngram] = count * idf
            num_bigrams += count if len(ngram) == 2 else 0
        norms = [math.sqrt(sum(w * w for w in by_length.values())) for by_length in weights]
        return weights, norms, num_bigrams

    scores = []
    for hypothesis, image_references in zip(hypotheses, counted, strict=True):
        vector = weigh(_count_ngrams(hypothesis))
        similarities = [_similarity(vector, weigh(counts)) for counts in image_references]
        scores.append(SCALE * sum(similarities) / len(similarities))
    return np.array(scores)


def _count_ngrams(caption: str) -> collections.Counter[NGram]:
    words = caption.split()
    return collections.Counter(
        tuple(words[i : i + n]) for n in range(1, MAX_NGRAM + 1) for i in range(len(words) - n + 1)
    )


def _similarity(hypothesis: _Vector, reference: _Vector) -> float:
    """The mean over n-gram lengths of the clipped cosine, in [0, 1]."""
    weights, norms, num_bigrams = hypothesis
    reference_weights, reference_norms, reference_num_bigrams = reference
    total = 0.0
    for n in range(MAX_NGRAM):
        norm = norms[n] * reference_norms[n]
        if norm > 0:
            other = reference_weights[n]
            dot = sum(min(w, other.get(g, 0.0)) * other.get(g, 0.0) for g, w in weights[n].items())
            total += dot / norm
    delta = num_bigrams - reference_num_bigrams
    return total / MAX_NGRAM * math.exp(-(delta**2) / (2 * LENGTH_SIGMA**2))
