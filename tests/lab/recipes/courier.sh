# Courier, delivering to ~/Maildir. /lab/setup/modules names the sources whose mail is filtered, if it is
# not empty; batchsize, if it is not empty, how many recipients one control file may have. A filter is put in
# by the test: its program to /usr/lib/courier/filters, then filterctl.
packages="courier-mta courier-authdaemon"

preseed() {
	printf 'courier-base courier-base/webadmin-configmode boolean false\n'
	printf 'courier-mta courier-mta/%s\n' 'defaultdomain string example.test' 'dsnfrom string mailer@example.test'
}

build() {
	local user
	cd /etc/courier
	echo mail.example.test >me
	echo example.test >defaultdomain
	printf 'localhost\nexample.test\nmail.example.test\n' >locals
	mkdir -p esmtpacceptmailfor.dir
	printf 'example.test\nmail.example.test\n' >esmtpacceptmailfor.dir/lab
	makeacceptmailfor
	# There is no DNS: no sender's domain is looked up, no client's name, no block list; nor /etc/services.
	# Nobody is kept waiting for a refusal.
	echo 'opt BOFHCHECKDNS=0' >bofh
	sed -i -e 's/^BOFHCHECKDNS=.*/BOFHCHECKDNS=0/' -e 's/^BLACKLISTS=.*/BLACKLISTS=""/' \
		-e 's/^PORT=.*/PORT=25\nADDRESS=127.0.0.1/' -e 's/^TARPIT=.*/TARPIT=0/' \
		-e 's/^MAXPERIP=.*/MAXPERIP=100/' -e 's/^MAXPERC=.*/MAXPERC=100/' -e 's/^MAXDAEMONS=.*/MAXDAEMONS=100/' \
		-e 's/^TCPDOPTS=.*/TCPDOPTS="-stderrlogger=\/usr\/sbin\/courierlogger -nodnslookup -noidentlookup"/' esmtpd
	makesmtpaccess
	: >aliases/lab
	makealiases
	for user in alice bob; do
		setpriv --reuid "$user" --regid "$user" --clear-groups maildirmake.courier "/home/$user/Maildir"
	done
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

configure() {
	if [[ -s /lab/setup/modules ]]; then
		cp /lab/setup/modules /etc/courier/enablefiltering
	fi
	if [[ -s /lab/setup/batchsize ]]; then
		cp /lab/setup/batchsize /etc/courier/batchsize
	fi
	# A line of aliases, as `staff: alice, bob`.
	if [[ -s /lab/setup/aliases ]]; then
		cp /lab/setup/aliases /etc/courier/aliases/lab
		makealiases
	fi
}

start() {
	install -d -o courier -g courier -m 755 /run/courier
	install -d -o courier -g courier -m 750 /run/courier/authdaemon
	/usr/sbin/authdaemond start
	courierfilter start
	courier start
	esmtpd start
	await_port 25
}
