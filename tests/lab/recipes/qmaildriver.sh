# The driver's programs (lab/qmail) in qmail's places, behind a real tcpserver: /lab/stand-ins/stub-qmail and stub-qmail-queue.
packages="ucspi-tcp"

build() {
	groupadd --system qmail
	useradd --system --gid qmail --home-dir /var/qmail --shell /usr/sbin/nologin qmailq
	groupadd --system nofiles
	useradd --system --gid nofiles --home-dir /var/qmail --shell /usr/sbin/nologin qmaild
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

start() {
	local name q=/var/qmail
	mkdir -p $q/bin $q/control
	install -d -m 1777 $q/log
	install -d -m 1777 -o qmailq $q/calls
	echo 0 >$q/exit
	# As qmail's own: only the queue's owner can read it, everybody can run it as that owner.
	install -m 4711 -o qmailq -g qmail /lab/stand-ins/stub-qmail-queue $q/bin/qmail-queue
	for name in qmail-smtpd qmail-inject qmail-send; do
		install -m 755 /lab/stand-ins/stub-qmail $q/bin/$name
	done
	echo mail.example.test >$q/control/me
	printf '127.:allow,RELAYCLIENT=""\n:allow\n' >/etc/tcp.smtp
	tcprules /etc/tcp.smtp.cdb /etc/tcp.smtp.tmp </etc/tcp.smtp
	$q/bin/qmail-send </dev/null >>/var/log/mail.log 2>&1 &
	tcpserver -H -R -l 0 -x /etc/tcp.smtp.cdb -u "$(id -u qmaild)" -g "$(id -g qmaild)" 0 25 $q/bin/qmail-smtpd \
		</dev/null >>/var/log/mail.log 2>&1 &
	await_port 25
}
