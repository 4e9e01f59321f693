"""Learning rates that change, parameter groups, a warm-up of one's own."""

import jittor as jt
from jittor import lr_scheduler, nn
from jittor.lr_scheduler import CosineAnnealingLR, MultiStepLR, StepLR
from jittor.optim import LambdaLR

model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
x = jt.ones((4, 2))


def rates(make, steps, **options):
    optimizer = nn.SGD(model.parameters(), 1.0, **options)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        scheduler.step()
        optimizer.step(model(x).sum() * 0)
        found.append(round(float(optimizer.lr), 4))
    return found


step = rates(lambda o: StepLR(o, step_size=2, gamma=0.1), 4)
multi = rates(lambda o: MultiStepLR(o, milestones=[1, 3], gamma=0.5), 4)
cosine = rates(lambda o: CosineAnnealingLR(o, 4), 4)
exponential = rates(lambda o: lr_scheduler.ExponentialLR(o, gamma=0.5), 3)
linear = rates(lambda o: LambdaLR(o, lambda epoch: 1 / (1 + epoch)), 3)

optimizer = nn.SGD(
    [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters()}], lr=0.01, momentum=0.9
)
groups = [group.get("lr", optimizer.lr) for group in optimizer.param_groups]

plateau = lr_scheduler.ReduceLROnPlateau(nn.SGD(model.parameters(), 1.0), patience=1, factor=0.1)
for loss in (1.0, 1.0, 1.0, 1.0):
    plateau.step(loss)
reduced = float(plateau.optimizer.lr)
