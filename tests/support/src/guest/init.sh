#!/bin/busybox sh
# The guest's first process. Every command is one that busybox has inside; its shell finds them by /proc/self/exe.

export PATH=/bin
mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t bpf bpf /sys/fs/bpf
chmod 1777 /tmp
while read -r module; do insmod "/modules/$module"; done </modules/order
ip link set lo up
# Many TAPs are many open files.
ulimit -n 65536

# One command a line comes in on the second serial port. Back go its exit status, the length of its output, and that.
stty -F /dev/ttyS1 raw -echo
exec </dev/ttyS1 3>/dev/ttyS1
echo ready >&3
while read -r command; do
    sh -c "$command" >/tmp/output 2>&1 </dev/null
    echo "$? $(wc -c </tmp/output)" >&3
    cat /tmp/output >&3
done
poweroff -f
