# qmail, delivering to ~/Maildir, behind tcpserver. It is in no Debian: /lab/qmail is a folder in which notqmail 1.09 was
# built (`make it man`), made outside of this repository.
packages="ucspi-tcp"

build() {
	local user
	groupadd --system nofiles
	groupadd --system qmail
	useradd --system --gid nofiles --home-dir /var/qmail/alias --shell /usr/sbin/nologin alias
	for user in qmaild qmaill qmailp; do
		useradd --system --gid nofiles --home-dir /var/qmail --shell /usr/sbin/nologin $user
	done
	for user in qmailq qmailr qmails; do
		useradd --system --gid qmail --home-dir /var/qmail --shell /usr/sbin/nologin $user
	done
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

start() {
	local name user
	(cd /lab/qmail && ./instpackage && ./instchown)
	ln -s /var/qmail/bin/sendmail /usr/sbin/sendmail
	cd /var/qmail/control
	echo mail.example.test >me
	printf '%s\n' example.test mail.example.test >locals
	cp locals rcpthosts
	echo '&alice' >/var/qmail/alias/.qmail-staff
	for name in postmaster mailer-daemon root; do
		echo '&alice' >/var/qmail/alias/.qmail-$name
	done
	for user in alice bob; do
		su -c '/var/qmail/bin/maildirmake ~/Maildir' $user
	done
	printf '127.:allow,RELAYCLIENT=""\n:allow\n' >/etc/tcp.smtp
	tcprules /etc/tcp.smtp.cdb /etc/tcp.smtp.tmp </etc/tcp.smtp
	cd /
	PATH=/var/qmail/bin:$PATH /var/qmail/bin/qmail-start ./Maildir/ splogger qmail </dev/null >/dev/null 2>&1 &
	tcpserver -H -R -l 0 -x /etc/tcp.smtp.cdb -u "$(id -u qmaild)" -g "$(id -g qmaild)" 0 25 /var/qmail/bin/qmail-smtpd \
		</dev/null >/dev/null 2>&1 &
	await_port 25
}
