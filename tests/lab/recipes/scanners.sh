# Programs that ask scanners, and no scanner: clamdscan, spamc, rspamc. Whom they ask, the test says.
packages="clamdscan spamc rspamd"

build() {
	# What asks is wanted, not what answers.
	rm -f /etc/clamav/clamd.conf
}
# ---- from here on: what happens at each start; a change does not ask for a new layer.

start() {
	:
}
