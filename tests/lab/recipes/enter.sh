# Runs as process 1 of fresh mount, process, IPC and host-name namespaces (and a network of its own,
# save while packages are fetched). First argument: `build` or `run`. Mounts the root, goes into it,
# does the recipe's part; a running root then stays until its owner closes standard input, by will or
# by dying: with process 1 the kernel ends everything in here, and the mounts go with the last of them.
#
#   enter.sh build|run RECIPE TOP LOWER SETUP [SOURCE:TARGET]...
#
# With LAB_BOOT=yes systemd is process 1 of the root, as on a machine, and starts the servers by their units. Process 1 of the
# namespaces around it stays a shell, so that the root ends with its owner in the same way.
set -euo pipefail

if [[ ${LAB_BOOT:-} == yes ]]; then
	exec 3<&0 </dev/null
	mount --make-rprivate /
	# systemd makes control groups: in one of its own, gone with it.
	groups=$3/groups
	mkdir -p "$groups"
	mount -t cgroup2 cgroup2 "$groups"
	group=$groups/checkpost-lab-$(basename "$(dirname "$3")")
	mkdir "$group"
	LAB_BOOT=now LAB_GROUP=$group unshare -m -p -f --kill-child bash -c \
		'echo 0 >"$LAB_GROUP/cgroup.procs"; exec unshare -C bash "$@"' boot "$0" "$@" 3<&- &
	system=$!
	{
		read -r _ <&3 || true
		kill -KILL $system
	} &
	wait $system || true
	# Whatever ran in there ends at about the same time.
	for ((tries = 0; tries < 250; tries++)); do
		! find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || break
		sleep 0.02
	done
	exit
fi

if [[ ${1:-} != inside ]]; then
	mode=$1 recipe=$2 top=$3 lower=$4 setup=$5
	shift 5
	# /proc is still the outer one, so this is the id by which the outside knows us.
	read -r pid _ </proc/self/stat
	echo "pid $pid"
	mount --make-rprivate /
	echo mail.example.test >/proc/sys/kernel/hostname
	if [[ $mode == run ]]; then
		# In memory: a start finds clean mailboxes, nothing is left behind, and fsync costs nothing.
		mount -t tmpfs -o "mode=755,size=${LAB_SIZE:-2g}" tmpfs "$top"
	fi
	mkdir -p "$top/upper" "$top/work" "$top/root"
	root=$top/root
	mount -t overlay overlay -o "lowerdir=$lower,upperdir=$top/upper,workdir=$top/work,index=off,metacopy=off" "$root"
	mount -t proc proc "$root/proc"
	mount -t tmpfs -o mode=755 tmpfs "$root/dev"
	for node in null zero full random urandom; do
		: >"$root/dev/$node"
		mount --bind "/dev/$node" "$root/dev/$node"
	done
	mkdir "$root/dev/shm"
	chmod 1777 "$root/dev/shm"
	ln -s /proc/self/fd "$root/dev/fd"
	if [[ $mode == run ]]; then
		mount -t tmpfs -o mode=755 tmpfs "$root/run"
		mkdir -m 1777 "$root/run/lock"
	fi
	if [[ ${LAB_BOOT:-} == now ]]; then
		mkdir -p "$root/sys" "$root/dev/pts"
		mount -t sysfs -o ro sysfs "$root/sys"
		mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
		mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
		ln -s pts/ptmx "$root/dev/ptmx"
	fi
	for bind in "$setup:/lab/setup" "$@"; do
		mkdir -p "$root${bind#*:}"
		mount --bind "${bind%%:*}" "$root${bind#*:}"
	done
	rm -f "$root/etc/resolv.conf"
	if [[ $mode == build ]]; then
		cp -L /etc/resolv.conf "$root/etc/resolv.conf"
	else
		cp "$root/etc/resolv.conf.lab" "$root/etc/resolv.conf"
	fi
	cd "$root"
	mkdir -p .outside
	pivot_root . .outside
	umount -l /.outside
	rmdir /.outside
	exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
		DEBIAN_FRONTEND=noninteractive LAB_BOOT="${LAB_BOOT:-}" bash /lab/setup/enter.sh inside "$mode" "$recipe"
fi

mode=$2 recipe=$3
cd /

# await_socket PATH: until a Unix socket is there; at most 60 s.
await_socket() {
	local tries
	for ((tries = 0; tries < 3000; tries++)); do
		[[ ! -S $1 ]] || return 0
		sleep 0.02
	done
	echo "$1 did not appear" >&2
	return 1
}
# await_port PORT: until somebody listens on 127.0.0.1 or on all addresses; at most 60 s. Nobody is
# asked, so no server's log has a client that only looked.
await_port() {
	local tries line
	printf -v line ':%04X 00000000:0000 0A' "$1"
	for ((tries = 0; tries < 3000; tries++)); do
		! grep -q "$line" /proc/net/tcp || return 0
		sleep 0.02
	done
	echo "nobody listens on port $1" >&2
	return 1
}
# show_milter FOLDER: the milter's socket is in /lab/shared/milter for those outside, and here for the
# server: no one but root may write there, since MTAs look after the folders above a socket.
show_milter() {
	mkdir -p -m 755 /lab/shared/milter "$1"
	mount --bind /lab/shared/milter "$1"
}
preseed() { :; }
# configure: from /lab/setup to the server's own files. start: the server, where nothing else starts it.
configure() { :; }
start() { :; }
. "/lab/setup/$recipe.sh"

case $mode in
build)
	preseed | debconf-set-selections
	# shellcheck disable=SC2086
	if ! apt-get -q -y -o Dpkg::Options::=--force-unsafe-io install $packages; then
		apt-get -q update
		apt-get -q -y -o Dpkg::Options::=--force-unsafe-io install $packages
	fi
	build
	echo ready
	;;
run)
	ip link set lo up
	configure >&2 </dev/null
	if [[ $LAB_BOOT == now ]]; then
		# Outlives the shell: ready when all units are started and the server listens.
		{
			until systemctl is-system-running --wait; do
				[[ $(systemctl is-system-running) != degraded ]] || break
				sleep 0.05
			done
			systemctl --failed --no-legend --plain
			await_port 25
		} >&2 && echo ready &
		exec env -i container=lab PATH="$PATH" /lib/systemd/systemd --log-target=journal --show-status=no >&2
	fi
	rsyslogd >&2 </dev/null
	start >&2 </dev/null
	echo ready
	# Nothing is ever sent: this ends when the owner is gone. Meanwhile the shell reaps orphans.
	read -r _ || true
	;;
esac
