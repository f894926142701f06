#!/bin/busybox sh
# The first process of the emulated machine: gives it a slow memory node and the host's files, and runs one command.

busybox=/bin/busybox
$busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
ip link set lo up

die() {
    echo "init: $*"
    poweroff -f
}

while read -r module; do
    insmod "/modules/$module" || die "no module $module"
done < /modules/order

# The slow node. A memory module of the persistent kind is made a DAX device, and that is handed to the driver which
# adds it to the system's memory (dax_kmem). Only memory that comes this way is in a tier of its own; two ordinary nodes
# share one, and the kernel never demotes from one to the other. It is online as "movable": then it can go offline, too.
slow_node() {
    cd /sys/bus/nd || die "no persistent memory"
    echo namespace0.0 > drivers/nd_pmem/unbind
    cat /proc/sys/kernel/random/uuid > devices/dax0.0/uuid
    echo ram > devices/dax0.0/mode
    echo namespace0.0 > devices/dax0.0/namespace
    echo dax0.0 > drivers/dax_pmem/bind
    echo online_movable > /sys/devices/system/memory/auto_online_blocks
    echo dax0.0 > /sys/bus/dax/drivers/kmem/new_id
    cd /
    tiers=$(ls -d /sys/devices/virtual/memory_tiering/memory_tier* | wc -l)
    [ "$tiers" = 2 ] || die "there should be two memory tiers, and there are $tiers"
    echo 1 > /sys/kernel/mm/numa/demotion_enabled
}
slow_node

# The host's files, which stay as they are: what is written goes to memory, and is gone with the machine.
share="trans=virtio,version=9p2000.L,msize=512000"
mount -t 9p -o "$share,ro,cache=loose" files /host || die "no files"
mount -t tmpfs -o size=60% tmpfs /written
mkdir /written/upper /written/work
mount -t overlay -o lowerdir=/host,upperdir=/written/upper,workdir=/written/work overlay /root || die "no overlay"

cd /root || die "no root"
for directory in dev proc sys; do
    mount --move /$directory $directory
done
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t devpts devpts dev/pts
mount -t tmpfs tmpfs run
mount -t tracefs tracefs sys/kernel/tracing
mount -t cgroup2 cgroup2 sys/fs/cgroup
echo "+memory +cpuset" > sys/fs/cgroup/cgroup.subtree_control
# What the host and this machine tell one another: the command, its status, and what it leaves for the host to keep.
mkdir run/exchange
mount -t 9p -o "$share,cache=none" exchange run/exchange || die "no exchange"

set -- dev/vport*p1
port=${1%1}
chroot . /bin/sh run/exchange/command < dev/null > "${port}1" 2> "${port}2"
echo $? > run/exchange/status
poweroff -f
