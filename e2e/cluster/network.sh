# Sourced by up and node: the pods' network. Each pod has a cable to its node, each node a route to the others' pods.
# The published node image has kind's own network agent, and nothing of this is needed there.
# shellcheck shell=bash disable=SC2154  # names come from common.sh

pod_range=10.244.0.0/16

address_of() { "$engine" inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }

pods_of() { kubectl get node "$1" --output 'jsonpath={.spec.podCIDR}'; }

# What containerd does with a new pod: a cable, and an address out of the node's range. No bridge: all packets then
# pass the node as forwarded ones, where Services and policies look at them.
cables() {
    cat <<JSON
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "$1"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}

# Pods see each other by their own addresses, on whichever node they are; only towards the world they take their node's.
masquerade() {
    cat <<NFT
table ip pods-to-world
delete table ip pods-to-world
table ip pods-to-world {
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr $pod_range ip daddr != $pod_range masquerade
    }
}
NFT
}

# Needed after each start of a node: its address may be another one then, and routes don't outlive a stop.
connect_nodes() {
    local node other pods
    for node in "${nodes[@]}"; do
        pods="$(pods_of "$node")"
        cables "$pods" | "$engine" exec --interactive "$node" sh -c 'mkdir -p /etc/cni/net.d && cat >/etc/cni/net.d/10-pods.conflist'
        masquerade | "$engine" exec --interactive "$node" nft --file -
        for other in "${nodes[@]}"; do
            [ "$other" = "$node" ] || "$engine" exec "$other" ip route replace "$pods" via "$(address_of "$node")"
        done
    done
}
