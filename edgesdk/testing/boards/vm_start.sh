#!/bin/busybox sh
# The first program of the virtual machine vm: drivers, the system's disk, the machine's own.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
while read -r module; do $b insmod "/modules/$module.ko"; done < /modules/order
word() { for w in $($b cat /proc/cmdline); do case $w in "board.$1="*) echo "${w#*=}" ;; esac; done; }
$b mount -t ext4 -o ro /dev/vda /system || echo "board: cannot mount the system"
$b mount -t ext4 -o "$(word mount)" /dev/vdb /system/root || echo "board: cannot mount the disk"
for each in dev proc sys; do $b mount --move /$each /system/$each; done
exec $b switch_root /system /sbin/board-init
