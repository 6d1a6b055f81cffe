# Images of the edge and of the connector: docker build --target edge -t warren-edge .   (or --target connector)
# docs/containers.md says how they are run. No secret is in an image, an environment or an argument.

FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.txt ./
# The versions that the tests ran with; a local package has no hash, so that they are constraints.
RUN grep -oE '^[A-Za-z0-9._-]+==[^ ;]+' requirements.txt > /constraints.txt
# The native engine, where its wheel was made (docs/containers.md); else the images run on aioquic.
COPY pyproject.toml README.md LICENSE dist/warren_quic*.whl ./
COPY src src
COPY agent agent
COPY cli cli
COPY connector connector
COPY dnsfilter dnsfilter
COPY edge edge
COPY fabric fabric
COPY netns-lab netns-lab
RUN python -m venv --without-pip /opt/warren && \
    pip --python /opt/warren/bin/python install --no-cache-dir --disable-pip-version-check --constraint /constraints.txt \
    '.[edge]' $(find . -maxdepth 1 -name '*.whl')

FROM python:3.13-slim AS runtime
RUN groupadd --gid 10001 warren && \
    useradd --uid 10001 --gid 10001 --home-dir /var/lib/warren --no-create-home --shell /usr/sbin/nologin warren && \
    install -d -o 10001 -g 10001 -m 0700 /var/lib/warren
COPY --from=build /opt/warren /opt/warren
ENV PATH=/opt/warren/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /var/lib/warren
USER 10001:10001
ENTRYPOINT ["/opt/warren/bin/warren"]

FROM runtime AS connector
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 \
    CMD ["/opt/warren/bin/warren", "connector", "ready", "--metrics", "127.0.0.1:9310"]
CMD ["connector", "run", "--token-file", "/run/secrets/token", "--metrics", "127.0.0.1:9310"]

FROM runtime AS edge
# In the volume, which is there anyway: all else may be read-only, and engines disagree on who owns a tmpfs.
ENV WARREN_SOCKET=/var/lib/warren/edge.sock
VOLUME ["/var/lib/warren"]
EXPOSE 4433/udp 4433/tcp
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 \
    CMD ["/opt/warren/bin/warren", "edge", "ready", "--metrics", "127.0.0.1:9311"]
CMD ["edge", "run", "--metrics", "127.0.0.1:9311"]
