"""PyTorch: from_numpy shares memory, autograd, DataLoader with workers, share_memory, save and load.

Needs: torch
"""

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

if __name__ == "__main__":
    torch.manual_seed(0)
    a = np.arange(400_000, dtype="f4").reshape(4000, 100)
    t = torch.from_numpy(a)
    t[0] = 7
    print(a[0, :3], t.sum().item(), t.data_ptr() == a.ctypes.data, np.shares_memory(t.numpy(), a))
    w = torch.zeros(100, requires_grad=True)
    loss = ((t / 1e5 @ w - 1) ** 2).mean()
    loss.backward()
    print(round(loss.item(), 6), w.grad[:2].tolist())
    for workers, context in ((0, None), (2, "fork"), (1, "spawn")):
        loader = DataLoader(TensorDataset(t), batch_size=1000, num_workers=workers, multiprocessing_context=context)
        print(workers, context, [round(batch.sum().item()) for (batch,) in loader])
    shared = torch.from_numpy(a.copy()).share_memory_()
    print(shared.is_shared(), shared.sum().item() == t.sum().item())
    torch.save(t, "t.pt")
    print(torch.equal(torch.load("t.pt"), t), torch.from_numpy(a[::2])[5, 0].item(), torch.tensor(a).numpy().sum())
