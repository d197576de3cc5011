#!/bin/busybox sh
# The first program of the virtual machine's system: an SSH server, the agent on the UART, and
# a few words from the console. The system's disk is read-only; /root is the machine's own.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
given=/sys/firmware/qemu_fw_cfg/by_name/opt/edgesdk
busybox mount -t tmpfs -o mode=755 run /run
busybox mount -t tmpfs tmp /tmp
busybox mkdir -p /dev/pts /dev/shm /run/sshd
busybox mount -t devpts pts /dev/pts
busybox mount -t tmpfs shm /dev/shm
busybox hostname vm
busybox ip link set lo up
busybox ip addr add 10.0.2.15/24 dev eth0
busybox ip link set eth0 up
word() { for w in $(busybox cat /proc/cmdline); do case $w in "board.$1="*) echo "${w#*=}" ;; esac; done; }

umask 077
busybox cat $given/host-key/raw > /run/host_key
busybox cat $given/key/raw > /run/authorized_keys
busybox cat $given/agent/raw > /run/edge-agent.pyz
/usr/sbin/sshd -h /run/host_key -o AuthorizedKeysFile=/run/authorized_keys -o UsePAM=no \
    -o PasswordAuthentication=no -o StrictModes=no -o UseDNS=no -o PrintMotd=no &

state=/root/.local/state/edgesdk/agent
busybox mkdir -p ${state%/*}
busybox rm -f $state/agent.sock
while :; do
    /usr/bin/python3 -I -S /run/edge-agent.pyz run --state $state --python /usr/bin/python3 \
        --tty /dev/ttyS0 --baud "$(word baud)" > /run/agent.log 2>&1 < /dev/null
    echo "board: the agent ended"
    busybox cat /run/agent.log
    busybox sleep 1
done &

listens() { busybox grep -q ":0016 00000000:0000 0A" /proc/net/tcp; }  # on port 22
until [ -S $state/agent.sock ] && listens; do busybox sleep 0.2; done
echo "board: ready"
while read -r line; do
    case $line in
        off)
            busybox killall python3 sshd
            busybox sync
            busybox umount /root || busybox mount -o remount,ro /root
            busybox poweroff -f
            ;;
        prove)
            echo "board: proof $(/usr/bin/python3 -I $given/proof/raw 2>&1 | busybox tail -n 1)"
            ;;
    esac
done
