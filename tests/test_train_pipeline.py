"""Training of a small pipeline of diffusers: what is kept of it is what was trained."""

import pytest

from experiments.exchange import train_pipeline


def test_an_average_of_few_steps_has_forgotten_where_training_started():
    average = 1.0
    for count in range(1, 600):
        average = train_pipeline.averaged(average, 0.0, count)
    assert 0.0 < average < 1e-12
    assert train_pipeline.averaged(1.0, 0.0, 10**6) == pytest.approx(train_pipeline.EMA_DECAY)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_module_that_is_kept_is_as_good_as_the_one_that_was_trained(tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module, x = torch.nn.Linear(1, 1), torch.ones(200, 1)
    with torch.no_grad():
        before = float((module(x) - 2.0).square().mean())

    def loss(network, some, labels):
        return (network(some) - 2.0).square().mean()

    row = train_pipeline.fit("autoencoder", module, loss, x, torch.zeros(200), 600, tmp_path)
    after = float(loss(module, x, None))
    assert row["loss"] < 0.5 * before
    assert after < 1.5 * row["loss"]
    again = torch.nn.Linear(1, 1)  # goes on where it was: at the end
    train_pipeline.fit("autoencoder", again, loss, x, torch.zeros(200), 600, tmp_path)
    assert float(loss(again, x, None)) == after
