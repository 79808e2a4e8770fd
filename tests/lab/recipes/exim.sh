# Exim as Debian configures it, delivering to ~/Maildir. /lab/setup/update has lines for
# update-exim4.conf.conf, each in place of the package's line of the same name; /lab/setup/files.sh writes
# files below /etc/exim4, before the daemon starts.
packages="exim4-daemon-heavy exim4-config"

preseed() {
	printf 'exim4-config exim4/%s\n' \
		'dc_eximconfig_configtype select internet site; mail is sent and received directly using SMTP' \
		'mailname string example.test' \
		'dc_other_hostnames string example.test : mail.example.test : localhost' \
		'dc_local_interfaces string 127.0.0.1' \
		'dc_localdelivery select Maildir format in home directory' \
		'dc_postmaster string alice' \
		'use_split_config boolean false'
}

build() {
	# The log is where Exim writes it; the lab looks in one place for all.
	rm -f /var/log/mail.log
	ln -s exim4/mainlog /var/log/mail.log
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

configure() {
	local line
	while read -r line; do
		sed -i "/^${line%%=*}=/d" /etc/exim4/update-exim4.conf.conf
		printf '%s\n' "$line" >>/etc/exim4/update-exim4.conf.conf
	done </lab/setup/update
	. /lab/setup/files.sh
	if [[ -s /lab/setup/aliases ]]; then
		cat /lab/setup/aliases >>/etc/aliases
	fi
	install -o Debian-exim -g adm -m 640 /dev/null /var/log/exim4/mainlog
}

start() {
	# Makes the configuration anew and starts the daemon; the same as on an administrator's machine.
	service exim4 start
	await_port 25
}
