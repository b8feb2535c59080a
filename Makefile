# Two commands do everything on a fresh Debian 12, Ubuntu 22.04 or 24.04:  make demo   make test
# Each does its own set-up first (system packages, .venv, ROS packages) and is quick the second time.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export OMP_NUM_THREADS ?= 1
export LP_NUM_THREADS ?= 1
# Set-up compiles no Python (docker/install_python.sh): where this is set, every process would compile all it imports again.
unexport PYTHONDONTWRITEBYTECODE
PY := .venv/bin/python
ROS := source docker/ros_env.sh
SEED ?= 0
# test files run at a time, on two cores: a third of their time is waiting for processes
WORKERS ?= 3

.PHONY: help setup demo demo-loop test test-full check format proto bench doctor base-policy clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | sort

setup: .venv/.installed .ros/.built ## system packages, .venv, ROS packages

.venv/.installed: pyproject.toml docker/constraints.txt docker/install_system.sh docker/install_python.sh
	bash docker/install_system.sh
	bash docker/install_python.sh
	touch $@

.ros/.built: .venv/.installed docker/build_ros.sh $(shell find msg/msg msg/srv msg/action msg/package.xml msg/CMakeLists.txt msg/wheels.cmake tests/ros/look_alikes pirl_ros launch -type f -not -path '*/__pycache__/*' 2>/dev/null)
	bash docker/build_ros.sh
	mkdir -p $(@D) && touch $@

demo: setup ## the main job: serve, log, fine-tune, promote, serve again (SEED=0)
	$(ROS) && pirl demo --seed $(SEED)

demo-loop: setup ## a simulated robot gets better from its own episodes, unattended: one round of the loop (SEED=0)
	rm -rf runs/demo-loop
	$(ROS) && python bench/robot_loop.py --rounds 1 --episodes 100 --gate-states 100 --states 200 --seeds $(SEED) --out runs/demo-loop

test: setup ## every test; lists at its end what was skipped and why
	$(ROS) && pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-full: setup ## one chunk of full-size pi0 and pi0.5 on the CPU: minutes, 14 GiB
	$(ROS) && PIRL_FULL_SIZE=1 pytest tests/model/test_full_size.py --durations=2

check: setup ## ruff, mypy --strict, import-linter
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: setup ## rewrite the sources in the project's format
	.venv/bin/ruff check --fix . && .venv/bin/ruff format .

proto: setup ## regenerate the committed gRPC stubs
	bash docker/generate_stubs.sh msg

doctor: setup ## what is missing or wrong on this machine, with the fix
	$(ROS) && pirl doctor

base-policy: setup ## make the shipped base checkpoint again: three scripted demonstrations, flow matching
	.venv/bin/pirl sft --task PushCube-v1 --seed 4 --set demonstrations=3 steps=150 --out server/pirl_server/checkpoints/pushcube-base

bench: setup ## all benchmarks, quick form
	$(ROS) && for file in bench/*.py; do python $$file --quick; done

clean: ## remove what setup and the demo made
	rm -rf .venv .ros runs
