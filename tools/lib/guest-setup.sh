# Makes a host of a fresh Debian: run in its root by guest-image.mjs, with the public key of the tests in $KEY.
set -eu

echo guest >/etc/hostname
printf '127.0.0.1 localhost guest\n' >/etc/hosts
: >/etc/machine-id

install -d -m 0700 /root/.ssh
printf '%s\n' "$KEY" >/root/.ssh/authorized_keys
ssh-keygen -A >/dev/null

cat >/etc/fstab <<END
LABEL=root / ext4 defaults,noatime,prjquota 0 0
LABEL=docker /var/lib/docker xfs defaults,prjquota 0 0
END

# The emulator's own network: it gives this address by DHCP too, but asking takes a second.
mkdir -p /etc/systemd/network
cat >/etc/systemd/network/20-emulated.network <<END
[Match]
Name=en* eth*
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
END

# What docs/operations.md asks of a host.
mkdir -p /etc/docker
echo '{"live-restore": true}' >/etc/docker/daemon.json

systemctl enable systemd-networkd ssh docker >/dev/null 2>&1
# Nothing that runs by itself in the middle of a test.
systemctl mask systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
  e2scrub_all.timer e2scrub_reap.service fstrim.timer >/dev/null 2>&1
