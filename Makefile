# The two commands: `make run` and `make test`. Each installs what it finds missing, builds, and does its job.
# One profile everywhere (--release), so that llama.cpp is compiled once per checkout.

.PHONY: run test tools

run: tools
	@cargo run --release --locked -- demo

test: tools
	@cargo test --release --workspace --locked --no-fail-fast -- --show-output 2>&1 | sh tests/summary.sh

# cmake, a C++ compiler and libclang, which compiling llama.cpp needs; silent when they are there.
tools:
	@sh tests/tools.sh
