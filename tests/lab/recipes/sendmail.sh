# Sendmail, delivering to ~/Maildir. /lab/setup/more.mc has lines for sendmail.mc, such as those of a
# milter; its socket is /run/checkpost/milter.sock. There are an MTA and a submission program (MSP), as
# Debian has them, each with a queue of its own.
packages="sendmail-bin sendmail-cf sensible-mda m4 make"

preseed() { :; }

build() {
	cd /etc/mail
	printf 'example.test\nmail.example.test\nlocalhost\n' >local-host-names
	# A name of the host's own is rewritten to its full name by the MSP; the domain is none.
	printf '127.0.0.1 localhost\n127.0.1.1 mail.example.test mail\n' >/etc/hosts
	# No names are asked of anybody: the files say it all.
	printf 'hosts\tfiles\naliases\tfiles\n' >service.switch
	cp service.switch service.switch-nodns
	# Debian's own file, without what slows down or counts clients, and with the lab's lines in it.
	sed -i -e '/greet_pause/d' -e '/conncontrol/d' -e '/ratecontrol/d' -e '/confCONNECTION_RATE/d' \
		-e '/^MAILER_DEFINITIONS/i include(`/etc/mail/lab.m4'"')dnl\\ninclude(\`/etc/mail/more.m4')dnl" sendmail.mc
	cat >lab.m4 <<-'X'
		define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch')dnl
		define(`confDOMAIN_NAME', `mail.example.test')dnl
		FEATURE(`nocanonify')dnl
		FEATURE(`accept_unresolvable_domains')dnl
		define(`confTO_IDENT', `0')dnl
		define(`LOCAL_MAILER_PATH', `/usr/local/lib/lab-maildir')dnl
		define(`LOCAL_MAILER_ARGS', `lab-maildir $g $u')dnl
		define(`LOCAL_MAILER_FLAGS', `Pn')dnl
		define(`confMIN_QUEUE_AGE', `0')dnl
	X
	cat >/usr/local/lib/lab-maildir <<-'X'
		#!/bin/sh
		# lab-maildir SENDER USER: one mail on standard input, into the Maildir of USER.
		set -e
		umask 022
		cd "/home/$2"
		mkdir -p Maildir/tmp Maildir/new Maildir/cur
		name=$(date +%s.%N).$$
		cat >"Maildir/tmp/$name"
		mv "Maildir/tmp/$name" "Maildir/new/$name"
	X
	chmod 755 /usr/local/lib/lab-maildir
	: >more.m4
	printf 'postmaster: root\n' >aliases
	make_cf
	sendmail -bi
}

make_cf() {
	m4 /etc/mail/sendmail.mc >/etc/mail/sendmail.cf
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

configure() {
	if [[ -s /lab/setup/more.mc ]]; then
		cp /lab/setup/more.mc /etc/mail/more.m4
		make_cf
	fi
	if [[ -s /lab/setup/aliases ]]; then
		cat /lab/setup/aliases >>/etc/mail/aliases
		sendmail -bi >/dev/null
	fi
}

start() {
	install -d -o root -g smmta -m 2755 /run/sendmail
	install -d -o smmta -g smmsp -m 2755 /run/sendmail/mta
	install -d -o smmsp -g smmsp -m 2775 /run/sendmail/msp
	install -d -o root -g smmsp -m 2775 /run/sendmail/stampdir
	show_milter /run/checkpost
	# Queue runs by queue runners that stay: an interval of a second.
	# By its full path, or it could not start itself anew at SIGHUP.
	/usr/sbin/sendmail -L sm-mta -Am -bd -qp1s
	setpriv --reuid smmsp --regid smmsp --clear-groups /usr/sbin/sendmail -L sm-msp -Ac -qp1s
	await_port 25
}
