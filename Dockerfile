# Two images of vit_jax, as a user without rights. Both run on CPUs; for GPUs, give
# --build-arg JAX=jax[cuda13] and start them with --gpus all.
#
#   docker build --target train -t vit_jax:train .
#   docker run --rm -v "$PWD/data:/data" -v "$PWD/runs:/runs" vit_jax:train \
#     train photographs --workdir=/runs/mine --config.data.source=folder:/data
#
#   docker build --target serve -t vit_jax:serve .
#   docker run --rm -p 8000:8000 -v "$PWD/runs:/runs:ro" vit_jax:serve serve /runs/mine --host 0.0.0.0

FROM python:3.12-slim AS base
ARG JAX=jax
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN useradd --create-home vit
WORKDIR /home/vit/source

# Serving needs no TensorFlow, which is 2 GB: only the preparation of data sets does.
FROM base AS serve
COPY requirements.txt pyproject.toml README.md LICENSE ./
RUN sed -i '/^tensorflow\(-cpu\)\?>/d' requirements.txt && pip install -r requirements.txt "$JAX"
COPY vit_jax vit_jax
COPY configs configs
RUN pip install '.[serve]'
USER vit
WORKDIR /home/vit
EXPOSE 8000
ENTRYPOINT ["vit_jax"]
CMD ["serve", "/runs", "--host", "0.0.0.0"]

FROM base AS train
COPY requirements.txt pyproject.toml README.md LICENSE ./
RUN pip install -r requirements.txt "$JAX"
COPY vit_jax vit_jax
COPY configs configs
RUN pip install .
USER vit
WORKDIR /home/vit
ENTRYPOINT ["vit_jax"]
CMD ["train", "--help"]
