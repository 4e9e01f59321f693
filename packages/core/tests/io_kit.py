"""Files that PyTorch itself wrote, for tests that run without it, and files made of pieces."""

from __future__ import annotations

import base64
import io as streams
import zipfile
import zlib

from metafuse import io

__all__ = ["LEGACY", "ZIP", "archive", "load", "unpacked"]

# {"w": 2x3 float32 transposed, "tail": its last two elements over the same storage, "half": bfloat16, "n": without
# dimensions, "p": a parameter, "epoch": 3}, written by torch.save of PyTorch 2.13.
ZIP = (
    "c-p0vT~E_c7{|}rts51`i!Z#W_^v}?tQ~A1Dx}fg)I^vuS-e^5R%l~c_jCt{CPoqhO5z20VZ1V4dhdl^`W3v;3*(&^Xf*K?n0QXhMq4tbc(S%"
    ">cmDt9cb-1y>6F5T5sJmoj?s=fk!lxpV?i4#saQ=`?wPU_M|XT<iFpVpkq;5UB7}<AB8p^T9vfzrFWB1MdBZFfuvV^Gc40x}fk`CtQ8KwoW~#F"
    "qu&#ucO-seM+=o1b9m5nv@+`R)EAzl99ERw$f)rL^Rw1T@6m}I_)`~^TG_@i&ta6pVX_quxD_t{+m<PT;2m3Iz=3sxGED>SVFd?oJ0G-vtdPH|"
    "D+oqMU!mL2M5?X<dHJz$DF&xOjK}V&l<_sKiRa>Z%!zyIzw1*v90lJ7~2tzleByK(Q)azOv!EiJO$DD~}==1sAu*$P_uj9@X5l*;XCy7^ozw2="
    "d!|5EHaVAvYY=c}^R9l_Xux9gcuC`c5l7{odlfjUnd}PV}l<$J;eG$Vz4hEk%H_68^l!H`0LR4DCD(WC8?0j-ciN+qi{{8s}aihmn!_w&@#ZxP"
    "t<cwv{skpG9*;VqAWU19xK>~Gs`|HaxMWjb#*Ity}cHOF<f@&JG<vFd4Whosf&A%F%VG1y@2;UhJg4q?I15MNc?%v0mMaxZ=#`hApHcSI!Q=<$"
    "kSHAXeBnr1HLmXZ8?aHB)EM58!0M~VCf}AGFj~q+ncr{6hy4E*0y2&5iO^62kM1m|O{+j6h1da6c+x5%M^B+f&Kawa*SN|vZWJI^TDMjVerbWZ"
    "XnowN!Q>0~S6zx6#H1|tR7S^Y^kImz^q49eB`lib66(G&i$RA$L-fo`%J|u2$KxgSy%{Isme4x_)TQEwpl>A2!A(hRJX2h&GmK_@#9T^rf;z%k"
    "Zh+--|A`Xk`vC(XHggm2^(VyqvBnU^sp$t*jI;XcWweKJge#e4pZv*P`DaRSqsFejxyiKInXR_fn+0nUzKHf&q;q&Qa(ar`GlzVq=+$Vp|qCoEm"
    "YQ6i=uT6vlS|O<Q?jFDPSx_qmwcg72Yr7)>Z91s+)^3|m`@*Ab@Xov?)#uMOhnf`ol)`ZXwXMMp)|GtVy3DxOcU-O2a8B15Z*lM4uU>?6HM}$5o"
    "%;u6nIEA"
)
LEGACY = (
    "c-nQ6%Wl&^6o!3E0*01yr(9dE3762iNt&!uA=J%qY0btPWEp3ujg0Nzo)m#p$(xpzXJEmS$KZ8%1SA$5+i69Ru{>kXnVIiD|Cz~@FM9C%>-w*S"
    "ci%VW+nMtGr%L?}q^30|Nm86dB66d^-sVZ_M<HZdV9n4>;0qCOn};Lc38Cy;It9hYnA@rUiKkF^pf#-;1ye6d1ZqsNR2uoAK%HrpmNTMo3k{}?$"
    "A_9SML$4xMU=Q++a3!)NOe2mZ^nKwvIP&*D6zK<9ZIulHF7wubhbFua*MtmM2>h>26brGEUg)IR(t(bW2N6Q1_J}NA`dqnQy%pf0*y^3F_kHMI"
    "L2hA?&0`>OO^xf3UZw4FOv~Z_~@zc3LSdO#0i0uCT0o?!tn#ldX$c*dX;jgyi#UvlW9!Z#c3w*;>>}Ulg<j9GjYBkc~0;a7fRB^%#*^+a_`8`#c"
    "6@=O4nGzB@&QHU_SRj?8|v~r4+a-aLvT^qOKusOwpfF^^eF4|B`#X4i+cmn?!E4O5!bn+a~T5#29z~b5gOBIPbaOiH>{K#p!l>{XUwcppZf<&z*{"
    "MKhOO^sq|3bk%{(xF?jqLOD2|!3&rEe^<XeHzc#P)Yg18nxvEr3l}oiMF^#wD(%(-uq;8E~Y8ka}Yw~2~$MEp4G5IP}yRzXQA?Vq8"
)


def unpacked(text: str) -> bytes:
    """The bytes of such a file."""
    return zlib.decompress(base64.b85decode(text))


def load(content, **options):
    return io.load(streams.BytesIO(content), **options)


def archive(entries, method=zipfile.ZIP_STORED):
    file = streams.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for name, content in entries:
            target.writestr(name, content)
    return file.getvalue()
