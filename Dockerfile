# The one image: operator, CSI controller, agent and node plugin. tools/image.ts makes the same one without a registry.
FROM node:26-bookworm-slim AS modules
WORKDIR /opt/longshore
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev

FROM node:26-bookworm-slim
# What the node plugin runs: making, checking and growing file systems, loop devices, mounts.
RUN apt-get update \
  && apt-get install --yes --no-install-recommends btrfs-progs e2fsprogs mount util-linux xfsprogs \
  && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log
WORKDIR /opt/longshore
COPY --from=modules /opt/longshore/node_modules node_modules
COPY LICENSE package.json ./
COPY src src
RUN ln -s /opt/longshore/src/bin/longshore.ts /usr/local/bin/longshore
WORKDIR /
# Agents and node plugin are told to run as root by their manifests.
USER 65532:65532
ENTRYPOINT ["longshore"]
