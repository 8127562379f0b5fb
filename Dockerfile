# The one image: operator, CSI controller, agent and node plugin. tools/image.ts makes the same one without a registry.
FROM node:26-bookworm-slim AS program
WORKDIR /opt/longshore
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev
COPY src src
COPY tools/image/javascript.ts /tmp/
RUN node /tmp/javascript.ts src

FROM node:26-bookworm-slim
# What the node plugin runs: making, checking and growing file systems, loop devices, mounts.
RUN apt-get update \
  && apt-get install --yes --no-install-recommends btrfs-progs e2fsprogs mount util-linux xfsprogs \
  && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/apt /var/log/dpkg.log
WORKDIR /opt/longshore
COPY --from=program /opt/longshore/node_modules node_modules
COPY LICENSE package.json ./
COPY --from=program /opt/longshore/src src
RUN ln -s /opt/longshore/src/bin/longshore.js /usr/local/bin/longshore
WORKDIR /
# Agents and node plugin are told to run as root by their manifests.
USER 65532:65532
ENTRYPOINT ["longshore"]
