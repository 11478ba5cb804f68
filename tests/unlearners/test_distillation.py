import pytest
import torch
import torch.nn.functional as F

from unlearnbench.unlearners.distillation import distillation_loss


def test_loss_is_kappa_squared_times_the_divergence_of_the_softened_outputs() -> None:
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    # By hand with kappa 2: p = softmax(0, 1), q = softmax(0.5, 0).
    p = torch.tensor([1.0, 2.718281828]) / 3.718281828
    q = torch.tensor([1.648721271, 1.0]) / 2.648721271
    expected = 4 * float((p * (p / q).log()).sum())
    assert float(distillation_loss(student, teacher, 2.0)) == pytest.approx(expected, rel=1e-6)


def test_element_mean_is_smaller_by_exactly_the_number_of_classes() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(7, 8), torch.randn(7, 8)
    whole = distillation_loss(student, teacher, 2.0, "batch_mean")
    # The division is exact because 8 is a power of two.
    assert torch.equal(distillation_loss(student, teacher, 2.0, "element_mean") * 8, whole)


@pytest.mark.filterwarnings("ignore:reduction. 'mean':UserWarning")
def test_element_mean_is_what_the_default_of_torch_computes() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 8), torch.randn(5, 8)
    reference = torch.nn.KLDivLoss()(F.log_softmax(student / 3, dim=1), F.softmax(teacher / 3, dim=1)) * 9
    assert torch.allclose(distillation_loss(student, teacher, 3.0, "element_mean"), reference)


def test_a_student_that_equals_the_teacher_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(4, 5, requires_grad=True)
    loss = distillation_loss(logits, logits.detach())
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.zeros_like(logits), atol=1e-7)
