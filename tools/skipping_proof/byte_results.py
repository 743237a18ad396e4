"""Rules compared by the bytes they need at equal loss, for each number of ranks."""

from skipping_proof import figures, stages

LOSSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
INT8 = ", INT8 rows"


class Curve:
    """(share of the unskipped deduplicated BF16 bytes, KL) of one rule; points in the order of measurement."""

    def __init__(self, title):
        self.title = title
        self.amounts, self.losses = [], []  # losses: figures.Ratio

    def add(self, amount, loss):
        self.amounts.append(amount)
        self.losses.append(loss)

    def bytes_at(self, loss):
        return figures.at_loss([one.mean() for one in self.losses], self.amounts, loss)

    def drawn_bytes_at(self, loss, draw):
        return figures.at_loss([one.drawn[draw] for one in self.losses], self.amounts, loss)


class ByteResults:
    """The curves of one kind of data on one number of ranks."""

    def __init__(self, workplace, methods, ranks, data):
        self.ranks, self.data = ranks, data
        kinds = stages.BYTE_KINDS[data]
        plain, coded = (one.start() for one in stages.byte_measurers(workplace, ranks, data))
        self.samples = plain.samples
        unskipped = figures.remote_bytes(plain.level_0, kinds)
        share = lambda measured: figures.remote_bytes(measured, kinds) / unskipped
        loss = lambda measured: figures.kl(plain.samples, measured, kinds)
        titles = {name: title for name, title, _ in methods.byte_rules()}
        self.curves = {}
        self.int8_alone = (share(coded.level_0), loss(coded.level_0))
        for name, point, is_coded in stages.byte_points(workplace, methods, ranks, data):
            measured = plain.measure(point)
            self._curve(name, titles[name]).add(share(measured), loss(measured))
            if is_coded:
                measured = coded.measure(point)
                self._curve(name + INT8, titles[name] + INT8).add(share(measured), loss(measured))

    def _curve(self, name, title):
        return self.curves.setdefault(name, Curve(title))

    def common_losses(self):
        """Those of LOSSES that the rules reach, with BF16 rows."""
        plain = [curve for name, curve in self.curves.items() if not name.endswith(INT8)]
        return [loss for loss in LOSSES if all(curve.bytes_at(loss) is not None for curve in plain)]

    def ratio(self, name, base, loss):
        """Bytes of one rule by those of another at equal loss: (mean, low, high)."""
        one, other = self.curves[name], self.curves[base]
        drawn = []
        for draw in range(figures.DRAWS):
            top, bottom = one.drawn_bytes_at(loss, draw), other.drawn_bytes_at(loss, draw)
            if top is not None and bottom is not None:
                drawn.append(top / bottom)
        return (one.bytes_at(loss) / other.bytes_at(loss), *figures.quantiles(drawn))
