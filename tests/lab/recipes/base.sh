# The base under every root: names, users, the log. Runs once inside the fresh base.
# packages: what mmdebstrap puts in beside apt itself.
# systemd is there, as on any Debian, and runs in those roots only that are booted.
packages="adduser dbus iproute2 mount procps rsyslog systemd systemd-sysv"

build() {
	echo mail.example.test >/etc/hostname
	echo example.test >/etc/mailname
	printf '127.0.0.1 localhost\n127.0.1.1 mail.example.test example.test mail\n' >/etc/hosts
	# There is no DNS. The resolver asks a port where nobody answers, and learns so at once.
	printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >/etc/resolv.conf.lab
	sed -i 's/^hosts:.*/hosts: files dns/' /etc/nsswitch.conf
	# Without one, systemd would take its start for the first of a new machine.
	systemd-machine-id-setup
	# No package may start a daemon while it is being installed.
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod 755 /usr/sbin/policy-rc.d
	# apt runs as root here, since its archive folder belongs to the cache outside.
	cat >/etc/apt/apt.conf.d/90checkpost-lab <<-'X'
		APT::Sandbox::User "root";
		APT::Install-Recommends "false";
		APT::Keep-Downloaded-Packages "true";
		Binary::apt-get::APT::Keep-Downloaded-Packages "true";
		Acquire::Languages "none";
		Acquire::Retries "3";
	X
	for user in alice bob; do
		useradd --create-home --shell /bin/sh "$user"
		echo "$user:secret" | chpasswd
	done
	useradd --system --user-group --home-dir /var/lib/checkpost --create-home --shell /usr/sbin/nologin checkpost
	# Written at once, without a kernel log: a test reads it right after the event.
	cat >/etc/rsyslog.conf <<-'X'
		module(load="imuxsock")
		$FileCreateMode 0644
		$IncludeConfig /etc/rsyslog.d/*.conf
		mail.* /var/log/mail.log
		*.*;mail.none /var/log/syslog
	X
	rm -rf /usr/share/doc /usr/share/man /usr/share/locale
}
