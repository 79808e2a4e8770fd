# ZMailer, delivering to /var/mail. It is in no Debian: /lab/zmailer is a tree as `make install DESTDIR=…` and its
# post-install leave it, made outside of this repository. The filter is put in by a test, as an administrator would.
# /lab/setup/relay names the addresses of relay clients.
packages="libdb5.3 libcrypt1"

build() {
	mkdir -p /var/mail
	chmod 1777 /var/mail
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

configure() {
	local address z=/opt/zmailer
	cp -a /lab/zmailer/{etc,opt,var} /
	ln -sf $z/sbin/sendmail /usr/sbin/sendmail
	chmod 4755 $z/sbin/sendmail
	# A stranger and a relay client, beside 127.0.0.1, which is a stranger, too.
	for address in 203.0.113.5 10.9.8.7; do
		ip address add $address/32 dev lo
	done
	printf '%s\n' example.test mail.example.test localhost >>$z/var/db/localnames
	sed 's/.*/[&]\/32/' /lab/setup/relay >>$z/var/db/smtp-policy.relay
	# Nor DNS.
	sed -i 's/ \(senderokwithdns\|acceptifmx\) -//g' $z/var/db/smtp-policy.src
	$z/lib/zmailer newdb
	$z/lib/policy-builder.sh -n
	printf 'hostname=mail.example.test\norgdomain=example.test\nmydomain=example.test\n' >$z/var/mail.conf
	# There is no /etc/services, and without it smtpserver takes any port.
	echo 'smtp 25/tcp' >>/etc/services
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
