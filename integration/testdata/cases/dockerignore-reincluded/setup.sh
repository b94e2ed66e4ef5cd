mkdir -p d/keep d/no; touch d/keep/f d/no/f d/x
