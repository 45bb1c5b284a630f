"""The BlackJAX side of hmc.py, in its own environment: python hmc_blackjax.py SETTING.json, then one line a round.

A line "SEED FILE" draws with that seed, saves the coordinates as FILE and answers with the CPU seconds.
"""

import json
import os
import sys
import time

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import blackjax  # pyright: ignore[reportMissingImports]
import jax  # pyright: ignore[reportMissingImports]
import jax.numpy as jnp  # pyright: ignore[reportMissingImports]
import numpy as np


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        setting = json.load(file)
    precision = jnp.asarray(setting["precision"], jnp.float32)
    chains, steps, n = setting["chains"], setting["steps"], len(precision)

    def log_prob(x):
        return -0.5 * x @ precision @ x

    kernel = blackjax.hmc.build_kernel()

    def step(state, key):
        def one(key, state):
            for_size, for_step = jax.random.split(key)
            jitter = jax.random.uniform(for_size, minval=-1.0, maxval=1.0) * setting["jitter"]
            size = setting["step"] * (1 + jitter)
            return kernel(for_step, state, log_prob, size, jnp.ones(n, jnp.float32), setting["leaps"])[0]

        state = jax.vmap(one)(jax.random.split(key, chains), state)
        return state, state.position

    @jax.jit
    def draws(key):
        start, rest = jax.random.split(key)
        x = jax.random.normal(start, (chains, n), jnp.float32) * setting["spread"]
        state = jax.vmap(lambda x: blackjax.hmc.init(x, log_prob))(x)
        return jax.lax.scan(step, state, jax.random.split(rest, steps))[1]

    draws(jax.random.PRNGKey(0)).block_until_ready()
    print(json.dumps({"blackjax": blackjax.__version__, "jax": jax.__version__}), flush=True)
    for line in sys.stdin:
        seed, path = line.split()
        begin = time.process_time()
        x = draws(jax.random.PRNGKey(int(seed))).block_until_ready()
        seconds = time.process_time() - begin
        np.save(path, np.asarray(x))
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
