# Runs a command in the virtual board that this file lies in: enter ro|rw HOME COMMAND...
#
# It wants to be root, or root of a user namespace, in a mount and a UTS namespace of its own:
# everything it mounts is seen by the command alone and goes away with it.
set -eu
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
here=$(cd "$(dirname "$0")" && pwd)
root=$here/root
mode=$1
home=$2
shift 2

if [ "$mode" = ro ]; then
    # a run leaves the board as it was made; where the kernel refuses that, it is only less safe
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root" 2>/dev/null || :
fi
mount --rbind /proc "$root/proc"
for name in null zero full random urandom tty; do
    if [ -e "/dev/$name" ]; then mount --bind "/dev/$name" "$root/dev/$name"; fi
done
mount --rbind /dev/pts "$root/dev/pts"
for name in dev/shm tmp run; do
    mount -t tmpfs -o mode=1777 tmpfs "$root/$name"
done
mount --bind "$home" "$root/root"

# Libraries read what the processor is from these: this computer's own would tell of another one.
for name in possible present online kernel_max; do
    file=devices/system/cpu/$name
    if [ -e "/sys/$file" ]; then mount --bind "/sys/$file" "$root/sys/$file"; fi
done
core=0
while [ "$core" -lt "$(getconf _NPROCESSORS_ONLN)" ]; do
    printf 'processor\t: %s\n' "$core"
    cat "$here/cpuinfo"
    echo
    core=$((core + 1))
done >"$root/run/cpuinfo"
mount --bind "$root/run/cpuinfo" "$root/proc/cpuinfo"

hostname "virtual-$(basename "$here")" 2>/dev/null || :
QEMU_CPU=$(cat "$here/cpu")
chroot=$(command -v chroot)
cd /
exec env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
    QEMU_CPU="$QEMU_CPU" "$chroot" "$root" "$@"
