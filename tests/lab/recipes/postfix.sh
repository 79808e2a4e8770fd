# Postfix, delivering to ~/Maildir. /lab/setup/main.cf has `name = value` lines, /lab/setup/master.cf
# one entry a line; an entry of the same name and type as one of Debian's takes its place.
packages="postfix"

preseed() {
	printf 'postfix postfix/%s\n' 'main_mailer_type select Internet Site' 'mailname string example.test'
}

build() {
	postconf -e \
		compatibility_level=3.6 \
		myhostname=mail.example.test mydomain=example.test myorigin=example.test \
		'mydestination=mail.example.test, example.test, localhost' \
		inet_interfaces=loopback-only inet_protocols=ipv4 \
		home_mailbox=Maildir/ mailbox_command= \
		disable_dns_lookups=yes smtp_host_lookup=native \
		minimal_backoff_time=1s queue_run_delay=1s
	newaliases
	# The files of the chroot, which Debian's start script would copy at every start.
	cp /etc/resolv.conf.lab /etc/resolv.conf
	/usr/lib/postfix/configure-instance.sh -
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

configure() {
	local line name type
	sed '/^$/d' /lab/setup/main.cf >>/etc/postfix/main.cf
	while read -r line; do
		read -r name type _ <<<"$line"
		[[ -z $name ]] || postconf -Me "$name/$type=$line"
	done </lab/setup/master.cf
	# A line of aliases, as `staff: alice, bob`.
	if [[ -s /lab/setup/aliases ]]; then
		cat /lab/setup/aliases >>/etc/aliases
		newaliases
	fi
}

start() {
	show_milter /var/spool/postfix/checkpost
	# Returns when master(8) listens on every port.
	postfix start
}
