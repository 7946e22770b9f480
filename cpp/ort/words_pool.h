// Max pooling of signs in words, which commutes with the sign: the largest of -1 and +1 is their OR.
#pragma once

#include "ort_api.h"

namespace equibit::ort {

// The operator `WordsMaxPool` of our domain: X (batch, words, places...) and flips (words), Y = flips ^ OR of
// flips ^ X over the places that there are of each window. A channel whose bit is set in flips has the
// smallest sign, not the largest.
struct WordsPoolOperator : CustomOp {
  WordsPoolOperator();
};

}  // namespace equibit::ort
