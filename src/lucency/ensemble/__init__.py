"""Several networks, classical learners on features, retrieval, radiomics. No torch."""
