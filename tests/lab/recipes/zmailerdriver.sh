# The driver's smtpserver and router (lab/zmailer) in ZMailer's place, with configuration files of ZMailer's form: written
# from what ZMailer 3.0.1 was seen to read. /lab/stand-ins/stub-zmailer is both programs.
packages=""

build() {
	mkdir -p /opt/zmailer
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

configure() {
	local z=/opt/zmailer p=/var/spool/postoffice
	mkdir -p $z/lib $z/share/cf $z/var/db /var/log/mail $p
	install -d -m 3777 $p/public
	install -d -m 1777 $p/router
	install -d -m 0750 $p/freezer
	install -m 755 /lab/stand-ins/stub-zmailer $z/lib/smtpserver
	ln $z/lib/smtpserver $z/lib/router
	cat >/etc/zmailer.conf <<-X
		MAILBIN=$z/lib
		MAILSHARE=$z/share
		MAILVAR=$z/var
		POSTOFFICE=$p
		LOGDIR=/var/log/mail
		SMTPOPTIONS="-sve -l \${LOGDIR}/smtpserver"
	X
	cp /lab/setup/smtpserver.conf $z/share/
	cp /lab/setup/process.cf $z/share/cf/
	printf 'example.test\nmail.example.test\n' >$z/var/db/localnames
	printf 'hostname=mail.example.test\norgdomain=example.test\n' >$z/var/mail.conf
	printf '_default_ipaddr\trelaycustomer -\n_full_rights\trelaytarget +\n' >$z/var/db/smtp-policy.src
	# It ends the one before and starts another, in the background.
	cat >$z/lib/zmailer <<-'X'
		#!/bin/sh
		for part in ${*:-router smtpserver}; do
			old=$(cat /var/spool/postoffice/.pid.$part 2>/dev/null) && kill "$old" 2>/dev/null
			setsid /opt/zmailer/lib/$part </dev/null >>/var/log/mail/$part 2>&1 &
		done
	X
	chmod 755 $z/lib/zmailer
	# Where systemd is process 1. Its parts restart each other, so they are nobody's main process.
	cat >/etc/systemd/system/zmailer.service <<-'X'
		[Unit]
		Description=ZMailer
		After=network.target
		[Service]
		Type=oneshot
		RemainAfterExit=yes
		KillMode=process
		ExecStart=/opt/zmailer/lib/zmailer
		[Install]
		WantedBy=multi-user.target
	X
	systemctl enable --quiet zmailer
}

start() {
	/opt/zmailer/lib/zmailer
	await_port 25
}
