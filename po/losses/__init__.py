"""Losses as pure functions of sequence log-probabilities; one value per pair or completion, never reduced.

    supervised      likelihood of the chosen completion
    reference_free  pairs, policy alone: CPO, SLiC, SimPO, ORPO
    averaged        the same on averages: IPO and hinge without a reference, AlphaPO, SimPER
    anchored        pairs, lead beyond the reference: DPO, DPO-gamma, SLiC-DPO, IPO
    length          DPO that minds lengths
    noise           DPO for labels that may be wrong: cDPO, robust DPO, ROPO
    displacement    against a falling chosen completion: RPO, DPOP, ARPO
    weighted        weights or beta by how well pairs are ranked: focal losses, DiscoPOP, beta-DPO
    divergence      other distances: EXO, f-DPO, chi-PO, Cal-DPO
    token_level     with distributions over tokens: TDPO, Mallows-DPO
    scored          with a metric's scores: soft labels, ODPO, REBEL, SPPO
    pointwise       pairs, each completion on its own: NCA, BCO, APO, KTO of pairs
    unpaired        labelled single completions: KTO, BCO, APO
    transport       distributions of log-ratios, rank by rank: AOT
    ranked          several completions in order: Plackett-Luce

`margins`, `exponents` and `choices` hold what they share.
"""
