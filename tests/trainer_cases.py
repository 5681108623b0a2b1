"""What tests of the trainer share: rows for every method, gradients of a step, inputs by plain means."""

import copy
import random

import torch
from tiny_training import EOS, preference_trainer, random_ids, random_pairs, tiny_llama
from transformers import TrainerCallback

from po.engine.forward import attach_engine
from po.references.mismatch import with_mismatched
from po.references.moving import MovingReference
from po.references.sources import LiveReference
from po.references.values import reference_values, with_values

SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "head_dim": 8}


def small_llama(seed=0):
    """A llama with one narrow layer in float64, so that sums in another order do not show."""
    return tiny_llama(seed, **SMALL).double()


def moved(model, seed=9):
    """Other weights than the reference's, so that no gradient is zero by symmetry."""
    torch.manual_seed(seed)
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def start_and_policy(method, values, model):
    """The model and one that has moved from it; the other way round for KTO, whose KL is then above 0."""
    other = moved(model)
    return (other, model) if "policy_mismatched" in method.needed(values) else (model, other)


def plain_rows(form, n, seed=0):
    """Rows of a data form with all that any method reads of the data."""
    generator = random.Random(seed)
    rows = []
    for pair in random_pairs(n, seed):
        row = {"prompt_ids": pair["prompt_ids"]}
        if form == "paired":
            scores = sorted((generator.random(), generator.random()))
            row |= pair | {"chosen_score": scores[1], "rejected_score": scores[0]}
            row |= {"win_probability": 0.5 + 0.5 * generator.random()}
        elif form == "ranked":
            candidates = range(generator.randint(2, 4))
            row["candidates_ids"] = [[*random_ids(generator, 1, 9), EOS] for _ in candidates]
        else:
            row |= {"completion_ids": pair["chosen_ids"], "desirable": len(rows) % 2 == 0}
            row["density_ratio"] = [1.0 if row["desirable"] else 0.5 + generator.random()]
        rows.append(row)
    return rows


def rows_for(method, values, n, start, seed=0):
    """Rows for a method, with what it reads of the data and of a fixed reference."""
    rows = plain_rows(method.data, n, seed)
    if "policy_mismatched" in method.needed(values):
        rows = with_mismatched(rows)
    return with_stored(rows, method, values, start)


def with_stored(rows, method, values, start):
    """The rows with the reference values that the method can have stored; as they are where it has none."""
    kinds = method.stored_reference(values)
    if not kinds:
        return rows
    form = "ranked" if method.data == "ranked" else "unpaired"
    return with_values(rows, reference_values(copy.deepcopy(start), rows, "fp32", kinds, form), form)


def reference_for(method, policy, start):
    """A reference model where the method needs one at hand, else None: the rows carry its values.

    ``policy()`` is the model that it follows if it moves.
    """
    if not method.needs_live_reference:
        return None
    frozen = attach_engine(copy.deepcopy(start).requires_grad_(False).eval())
    if not method.reference_sync:
        return LiveReference(frozen)
    return MovingReference(frozen, lambda: list(zip(frozen.parameters(), policy().parameters(), strict=True)))


def trainer_for(tmp_path, method, params, rows, model, start, **arguments):
    """A trainer, of a copy of the model, with the reference that the method needs."""
    trained = [model]
    reference = arguments.pop("reference", None) or reference_for(method, lambda: trained[0], start)
    trainer = preference_trainer(tmp_path, model, rows, method, params, reference=reference, **arguments)
    trained[0] = trainer.model
    return trainer


def step_gradients(trainer, rows, micro):
    """Loss and gradients of one optimizer step over the rows, split into micro-batches of a size."""
    trainer.model.train()
    trainer.model.zero_grad()
    batches = [trainer.data_collator(rows[i : i + micro]) for i in range(0, len(rows), micro)]
    batches, _ = trainer.get_batch_samples(iter(batches), len(batches), trainer.args.device)
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in trainer.model.named_parameters()}


def assert_same_gradients(found, expected, relative):
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= relative * gradient.norm() + 1e-9, name


class Gradients(TrainerCallback):
    """Keeps the gradients of each optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters()})


class Scores:
    """Values of one completion, from the model's own logits over nothing but its prompt and itself."""

    def __init__(self, model, prompt, completion):
        logits = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, :-1]
        logps = logits.log_softmax(-1)
        self.distributions = logps[len(prompt) - 1 :]
        self.tokens = self.distributions[range(len(completion)), completion]
        self.prompt_tokens = logps[range(len(prompt) - 1), prompt[1:]]
        self.length = len(completion)
        self.collision = (self.distributions.exp() ** 2).sum(-1).log().mean()
        entropies = -(self.distributions.exp() * self.distributions).sum(-1)
        self.entropy = entropies.mean() / torch.tensor(logits.shape[-1]).log()

    def by_rule(self, rule, shared, alpha):
        """The log-probability as a method counts it; ``shared`` is the length of the shorter completion."""
        if rule == "mean":
            return self.tokens.mean()
        if rule == "shared_length":
            return self.tokens[:shared].sum() + alpha * self.tokens[shared:].sum()
        return self.tokens.sum()


def plain_inputs(method, values, policy, start, rows):
    """Inputs of a method's loss for rows of its data form, at the first step, without engine and trainer."""
    attach_engine(policy), attach_engine(start)  # as in training; without a mask they answer as ever
    frozen = torch.no_grad()(lambda *texts: Scores(start, *texts))
    if method.data == "ranked":
        return _ranked(policy, frozen, rows)
    if method.data == "unpaired":
        return _unpaired(values, policy, frozen, rows)
    if method.data == "supervised":
        ours = [Scores(policy, row["prompt_ids"], row["completion_ids"]) for row in rows]
        return _likelihood(values, ours)
    return _paired(method, values, policy, frozen, rows)


def _paired(method, values, policy, frozen, rows):
    found, sides = {}, {}
    for side in ("chosen", "rejected"):
        texts = [(row["prompt_ids"], row[f"{side}_ids"]) for row in rows]
        ours, theirs = [Scores(policy, *text) for text in texts], [frozen(*text) for text in texts]
        shared = [min(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]
        rule = (method.logps_for(values), values.get("alpha"))
        for name, scores in (("policy", ours), ("reference", theirs)):
            counted = [s.by_rule(rule[0], k, rule[1]) for s, k in zip(scores, shared, strict=True)]
            found[f"{name}_{side}"] = torch.stack(counted)
            found[f"{name}_{side}_mean"] = torch.stack([s.tokens.mean() for s in scores])
        found[f"{side}_length"] = torch.tensor([s.length for s in ours])
        found[f"{side}_collision"] = torch.stack([s.collision for s in ours])
        kls = [
            (r.distributions.exp() * (r.distributions - p.distributions)).sum()
            for p, r in zip(ours, theirs, strict=True)
        ]
        found[f"{side}_kl"] = torch.stack(kls)
        sides[side] = (ours, theirs)
    entropies = [torch.stack([s.entropy for s in theirs]) for _, theirs in sides.values()]
    found["reference_entropy"] = (entropies[0] + entropies[1]) / 2
    if method.needs_nll:
        found |= _likelihood(values, sides["chosen"][0])
    chosen = found["policy_chosen"] - found["reference_chosen"]
    rejected = found["policy_rejected"] - found["reference_rejected"]
    margin = (chosen - rejected).detach().mean()
    beta = float(values.get("beta", values.get("bco_pair_beta", 0)))
    found["reward_shift"] = beta * (chosen + rejected).detach().mean() / 2
    if values.get("bco_pair_delta_rule") == "none":
        found["reward_shift"] = torch.zeros(())
    found |= {"batch_margin": margin, "running_margin": 0.1 * margin, "kept": torch.ones(len(rows))}
    columns = ("chosen_score", "rejected_score", "win_probability")
    return found | {name: torch.tensor([row[name] for row in rows]) for name in columns}


def _unpaired(values, policy, frozen, rows):
    texts = [(row["prompt_ids"], row["completion_ids"]) for row in rows]
    desirable = torch.tensor([row["desirable"] for row in rows])
    found = {
        "policy": torch.stack([Scores(policy, *text).tokens.sum() for text in texts]),
        "reference": torch.stack([frozen(*text).tokens.sum() for text in texts]),
        "desirable": desirable,
        "density_ratio": torch.tensor([row["density_ratio"][0] for row in rows]),
    }
    before = [rows[i - 1]["completion_ids"] for i in range(len(rows))]  # of the row before, in the whole data
    foreign = [(row["prompt_ids"], ids) for row, ids in zip(rows, before, strict=True)]
    ratios = [(Scores(policy, *text).tokens.sum() - frozen(*text).tokens.sum()).detach() for text in foreign]
    found["kl"] = torch.stack(ratios).mean()
    rewards = values["beta"] * (found["policy"] - found["reference"]).detach()
    found["reward_shift"] = (rewards[desirable].mean() + rewards[~desirable].mean()) / 2
    return found


def _ranked(policy, frozen, rows):
    lists = [[(row["prompt_ids"], ids) for ids in row["candidates_ids"]] for row in rows]
    most = max(map(len, lists))
    found = {"candidate_mask": torch.tensor([[k < len(texts) for k in range(most)] for texts in lists])}
    for name, ask in (("policy_ranked", lambda *t: Scores(policy, *t)), ("reference_ranked", frozen)):
        table = [[ask(*text).tokens.sum() for text in texts] for texts in lists]
        found[name] = torch.stack(
            [torch.stack([*values, *[torch.zeros(()).double()] * (most - len(values))]) for values in table]
        )
    return found


def _likelihood(values, chosen):
    tokens = [
        torch.cat([s.prompt_tokens, s.tokens])
        if values.get("nll_scope") == "prompt_and_completion"
        else s.tokens
        for s in chosen
    ]
    summed, lengths = torch.stack([t.sum() for t in tokens]), torch.tensor([len(t) for t in tokens])
    reduced = {
        "token_batch": -(summed.sum() / lengths.sum()).expand(len(chosen)),
        "seq_mean": -summed / lengths,
        "seq_sum": -summed,
    }
    return {"chosen_nll": reduced[values["nll_reduction"]]}
