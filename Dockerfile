# Serves the page of a world.  On a CPU:
#
#     docker build -t reverie .
#     docker run --rm -p 8000:8000 reverie
#
# On an NVIDIA GPU (the host needs its driver and the NVIDIA container toolkit):
#
#     docker build -t reverie:cuda --build-arg DEVICE=cuda .
#     docker run --rm -p 8000:8000 --gpus all reverie:cuda --model Skywork/Matrix-Game-2.0
#
# The link that it prints has a token: whoever has it can play.  Models from the Hub are kept in the volume /home/reverie/cache.
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
WORKDIR /src
RUN pip install --no-cache-dir "hatchling>=1.27"
COPY pyproject.toml README.md LICENSE .gitignore ./
COPY src src
COPY packages packages
RUN python -m hatchling build -t wheel -d /dist && cd packages/reverie-worlds && python -m hatchling build -t wheel -d /dist

FROM python:${PYTHON}-slim
ARG DEVICE=cpu
# torch's versions on the default index are built for CUDA; the CPU builds have an index of their own.
ARG TORCH=2.13.0
RUN case "${DEVICE}" in \
        cpu) pip install --no-cache-dir "torch==${TORCH}" --index-url https://download.pytorch.org/whl/cpu ;; \
        cuda) pip install --no-cache-dir "torch==${TORCH}" ;; \
        *) echo "DEVICE must be cpu or cuda, got ${DEVICE}" >&2; exit 2 ;; \
    esac
COPY --from=build /dist /dist
# GAMES=1: with the games that pip alone installs, for `--world city`, say.
ARG GAMES=
RUN pip install --no-cache-dir --find-links /dist "$(echo /dist/reverie_world-*.whl)${GAMES:+[worlds]}" && rm -r /dist \
    && useradd --create-home reverie && install -d -o reverie /home/reverie/cache
USER reverie
WORKDIR /home/reverie
ENV HF_HOME=/home/reverie/cache/huggingface XDG_CACHE_HOME=/home/reverie/cache
VOLUME /home/reverie/cache
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import socket; socket.create_connection(('127.0.0.1', 8000), 5)"]
# The exec form: Ctrl-C and `docker stop` reach the server.
ENTRYPOINT ["reverie", "serve", "--host", "0.0.0.0", "--port", "8000"]
