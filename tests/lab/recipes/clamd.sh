# clamd with one hand-made signature: EICAR, in any file, at any place. It comes in /lab/setup/lab.ndb.
# Its socket is /lab/shared/clamd.sock; TCP on 127.0.0.1:3310.
packages="clamav-daemon"

build() {
	rm -f /var/lib/clamav/*
	cat >/etc/clamav/clamd.conf <<-'X'
		LocalSocket /lab/shared/clamd.sock
		LocalSocketMode 666
		FixStaleSocket true
		TCPSocket 3310
		TCPAddr 127.0.0.1
		User clamav
		DatabaseDirectory /var/lib/clamav
		LogFile /var/log/mail.log
		LogFileMaxSize 0
		PidFile /run/clamd.pid
		Bytecode false
		SelfCheck 0
		ConcurrentDatabaseReload no
		CommandReadTimeout 30
	X
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

start() {
	cp /lab/setup/lab.ndb /var/lib/clamav/
	[[ ! -s /lab/setup/clamd.conf ]] || cat /lab/setup/clamd.conf >>/etc/clamav/clamd.conf
	: >/var/log/mail.log
	chown clamav: /var/log/mail.log
	clamd
	await_socket /lab/shared/clamd.sock
}
