# The image of `quittance serve`. Build and start it once with `make image`.
#
# Health is asked of the operations port: GET /livez and GET /readyz on 9402. There is no HEALTHCHECK
# here, because orchestrators ask that port themselves and the image has no HTTP client;
# deploy/compose.yaml shows how to ask with bash alone.

# Both bases can be replaced, for a mirror or for machines without an image registry.
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /build
COPY . .
# Queries are checked against the committed .sqlx; migrations are compiled into the binary.
ENV SQLX_OFFLINE=true
RUN cargo build --release --locked --bin quittance \
    && cp "${CARGO_TARGET_DIR:-target}/release/quittance" /quittance

FROM ${BASE_IMAGE}
# What HTTPS endpoints are checked against; the slim base has none.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /quittance /usr/local/bin/quittance
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
# A container is reached from outside its own loopback, which is what the program binds by default.
ENV QUITTANCE__SERVER__HOST=0.0.0.0 \
    QUITTANCE__SERVER__PORT=8402 \
    QUITTANCE__OPERATIONS__HOST=0.0.0.0 \
    QUITTANCE__OPERATIONS__PORT=9402
# The service, and liveness, readiness and metrics.
EXPOSE 8402 9402
# A graceful stop: who waits is answered, and what is in flight is in the books.
STOPSIGNAL SIGTERM
ENTRYPOINT ["quittance"]
CMD ["serve"]
